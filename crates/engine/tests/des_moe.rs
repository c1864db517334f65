//! DES-MoE against masked ESFT with the same budget, on the task of the example of the same name.
//!
//! The example prints more than is asserted here, also what does not speak for DES-MoE: ESFT with natural
//! routing learns more of the new language and protects the known one about as well, and where the
//! languages share all their words masked ESFT learns more of the new one too.

#[expect(dead_code, reason = "the example compares more ways of training")]
#[path = "../examples/des_moe/task.rs"]
mod task;

use task::{Losses, Method, Task};

/// The middle one of the example's.
const RATE: f32 = 3e-3;

const SEEDS: [u64; 3] = [1, 2, 3];

/// What should happen, over a few seeds: less is lost of the known language and more is learnt of the new
/// one than by the same steps of the same experts with routing restricted to them.
#[test]
fn protects_the_known_domain_and_learns_the_new_one_better_than_masked_esft() {
    let of_seed = |seed| {
        let task = Task::new(seed, 10).expect("a model can be trained");
        let after = |method| task.after(method, RATE).expect("finite");
        let before = task.before().expect("finite");
        [before, after(Method::DesMoe(0.6)), after(Method::Masked)]
    };
    let each: Vec<[Losses; 3]> = std::thread::scope(|scope| {
        let runs = SEEDS.map(|seed| scope.spawn(move || of_seed(seed)));
        let ended = runs.map(|run| run.join().expect("a run ends"));
        ended.to_vec()
    });
    let [before, ours, masked] = [0, 1, 2].map(|index| mean(each.iter().map(|run| run[index])));
    assert!(ours.known < masked.known - 5e-4, "{each:?}");
    assert!(ours.new < masked.new - 2e-3, "{each:?}");
    assert!(ours.new < before.new - 0.02, "{each:?}");
}

fn mean(each: impl Iterator<Item = Losses>) -> Losses {
    let share = 1.0 / SEEDS.len() as f64;
    let nothing = Losses {
        known: 0.0,
        new: 0.0,
    };
    each.fold(nothing, |sum, losses| Losses {
        known: sum.known + share * losses.known,
        new: sum.new + share * losses.new,
    })
}
