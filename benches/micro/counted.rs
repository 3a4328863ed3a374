//! Runs one hot part so many times, to be counted by callgrind: see `benches/micro/count`.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may end where it cannot go on"
)]

mod cases;

use cases::CASES;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` and `cargo test --benches` call it without a case.
    let [name, times] = &arguments[..] else {
        return CASES.iter().for_each(|case| println!("{}", case.name));
    };
    let case = CASES.iter().find(|case| case.name == *name).expect("a case of the list");
    let mut run = (case.prepare)();
    for _ in 0..times.parse::<u32>().expect("a number") {
        run();
    }
}
