//! Branches beside the backbone: what a captured step's lanes share of memory, seen launch by launch, and that they change no bit.

use mixskd_kernels::races;
use mixskd_losses::objective;

use super::*;

#[global_allocator]
static MEMORY: races::Allocator = races::Allocator;

/// One step in turn, and one whose branches run beside the backbone: no races, and the same bits. What was seen.
fn beside(network: &str, method: &str, objective: &ObjectiveConfig, dtype: DType) -> races::Found {
    let what = format!("{network}, {method}, {objective:?}, {dtype:?}");
    let in_turn = step_with(network, method, objective, dtype);
    let watching = races::start();
    let beside = step_with(network, method, objective, dtype);
    let found = watching.stop();
    assert_eq!(found.races, [""; 0], "{what}");
    assert!(in_turn == beside, "{what}: other numbers");
    found
}

#[test]
fn branches_beside_the_backbone_wait_for_what_they_share_and_change_no_bit() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    let objective = ObjectiveConfig::default();
    for network in registry::ALL {
        let found = beside(network.name, "mixskd", &objective, DType::BF16);
        assert!(found.lanes > 1, "{}: {found:?}", network.name);
    }
    for method in method::ALL {
        beside("cifar_resnet18", method.name, &objective, DType::BF16);
    }
    let found = beside("cifar_resnet18", "mixskd", &objective, DType::F32);
    // Of 635 launches 221 wait for each other. Were the backbone to wait on its way back for a branch that it has nothing to do with, it would be 259.
    assert!(5 * found.longest < 2 * found.launches, "{found:?}");
}

/// Which lane a term's work goes to depends on what other terms there are.
#[test]
fn terms_beside_each_other_wait_for_what_they_share() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    for preset in objective::ALL {
        let whole = preset.config;
        let mut objectives = vec![whole];
        let without: [fn(&mut ObjectiveConfig); 7] = [
            |o| o.task_original = 0.0,
            |o| o.task_mix = 0.0,
            |o| o.feature = 0.0,
            |o| o.adversarial = 0.0,
            |o| o.branch_probability = 0.0,
            |o| o.self_teacher_task = 0.0,
            |o| o.backbone_probability = 0.0,
        ];
        for leave_out in without {
            let mut part = whole;
            leave_out(&mut part);
            objectives.push(part);
        }
        for objective in objectives {
            beside("cifar_resnet18", "mixskd", &objective, DType::BF16);
        }
    }
}
