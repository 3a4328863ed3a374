//! Micro-benchmarks of the main path: `cargo bench --bench micro`.
#![allow(clippy::expect_used, missing_docs, reason = "a benchmark may end where it cannot go on")]

mod cases;

use cases::CASES;

#[divan::bench(args = CASES.iter().map(|case| case.name))]
fn hot(bencher: divan::Bencher<'_, '_>, name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("it is in the list");
    let run = (case.prepare)();
    bencher.bench_local(run);
}

fn main() {
    divan::main();
}
