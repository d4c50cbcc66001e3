//! Branches beside the backbone: what a captured step's lanes share of memory, seen launch by launch, and that they change no bit.

use mixskd_kernels::races;

use super::*;

#[global_allocator]
static MEMORY: races::Allocator = races::Allocator;

/// One step whose branches run beside the backbone: the step, and what was seen.
fn watched(network: &str, method: &str, dtype: DType) -> (Step, races::Found) {
    races::start();
    let step = step(network, method, dtype);
    (step, races::stop())
}

#[test]
fn branches_beside_the_backbone_wait_for_what_they_share_and_change_no_bit() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    let networks = registry::ALL.iter().map(|spec| (spec.name, "mixskd"));
    let methods = method::ALL.iter().map(|spec| ("cifar_resnet18", spec.name));
    for (network, method) in networks.chain(methods) {
        let what = format!("{network}, {method}");
        let in_turn = step(network, method, DType::BF16);
        let (beside, found) = watched(network, method, DType::BF16);
        assert_eq!(found.races, [""; 0], "{what}");
        assert!(in_turn == beside, "{what}: other numbers");
        if (network, method) == ("cifar_resnet18", "mixskd") {
            assert!(2 * found.longest < found.launches, "{found:?}");
        }
    }
}
