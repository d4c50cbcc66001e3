//! Merging an operation into the one that made its input.

use super::{Graph, Node, Value};

/// The graph with `merge(node, input, producer)` tried on every node and each of its inputs that nobody else reads, latest
/// input first. Where it gives a node, that takes the place of `node`, and the producer is gone.
///
/// The merged node stands where the later one stood, so it finds the inputs of both already made.
pub(super) fn merge<E>(
    graph: &Graph,
    merge: impl Fn(&Node, Value, &Node) -> Result<Option<Node>, E>,
) -> Result<Graph, E> {
    let readings = graph.readings();
    let mut slots: Vec<Option<Node>> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let mut node = node.clone();
        let mut inputs = node.inputs.clone();
        inputs.sort_unstable();
        for &input in inputs.iter().rev() {
            let producer = match &slots[input.0] {
                Some(producer) if readings[input.0] == 1 => producer,
                _ => continue,
            };
            if let Some(merged) = merge(&node, input, producer)? {
                slots[input.0] = None;
                node = merged;
                break;
            }
        }
        slots.push(Some(node));
    }
    Ok(compact(slots, graph.output))
}

/// Closes the gaps.
fn compact(slots: Vec<Option<Node>>, output: Value) -> Graph {
    let mut moved = vec![Value(0); slots.len()];
    let mut nodes = Vec::with_capacity(slots.len());
    for (old, slot) in slots.into_iter().enumerate() {
        if let Some(mut node) = slot {
            for input in &mut node.inputs {
                *input = moved[input.0];
            }
            moved[old] = Value(nodes.len());
            nodes.push(node);
        }
    }
    Graph {
        nodes,
        output: moved[output.0],
    }
}
