//! The heap of one run, counted: an allocation sized by a number from the wire shows here long before it hurts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{set_hook, take_hook};
use std::process::abort;

use bytes::Bytes;

use crate::entries::Entry;

/// Counts what each thread holds. A `realloc` counts as both blocks at once, as it may need them.
pub struct Meter;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOLD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is the system allocator's; counting touches only thread-local numbers, and allocates nothing.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
}

/// In the place of libFuzzer's hook, which ends the process at every panic: one within a codec's crate is caught by the
/// product and is an error of the batch.
pub fn forgive_codecs() {
    let told = take_hook();
    set_hook(Box::new(move |info| {
        let of_a_crate = info.location().is_some_and(|at| at.file().contains("/registry/src/"));
        if !of_a_crate {
            told(info);
        }
    }));
}

/// Runs `entry`, and ends the process if it holds more than it may.
pub fn run(entry: &Entry, data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let before = HELD.get();
    PEAK.set(before);
    (entry.run)(&data);
    let peak = PEAK.get() - before;
    let max = entry.heap_bytes_max(data.len());
    if peak > max as isize {
        let len = data.len();
        eprintln!("{}: {peak} bytes of heap for an input of {len}; {max} are allowed", entry.name);
        abort();
    }
    if peak > TOLD.get() + TOLD.get() / 4 {
        TOLD.set(peak);
        eprintln!("heap: {peak} bytes for an input of {}", data.len());
    }
}
