//! The fuzz targets of Strait: [`entries`] says what each one does, [`meter`] holds it to its heap.
//!
//! `entries` is compiled a second time into the test suites, which replay the corpus.

pub mod entries;
pub mod frames;
pub mod meter;

pub use libfuzzer_sys;

/// The whole of a target's file.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[global_allocator]
        static METER: $crate::meter::Meter = $crate::meter::Meter;

        /// In the place of the C library's, of which the standard library has the keys of its maps: the same input takes the
        /// same way each time, so that what it covers, and what is made of it next, hang on nothing else.
        // SAFETY: it fills what it is told to, as its namesake does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn getrandom(bytes: *mut u8, len: usize, _flags: u32) -> isize {
            unsafe { bytes.write_bytes(0x5a, len) };
            len as isize
        }

        /// In the place of the C library's: Rust's clocks stand still, the one of which hyper makes a date included. An entry's
        /// time is tokio's, which is paused.
        // SAFETY: `time` is a `timespec`, two words on every 64-bit system.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn clock_gettime(_clock: i32, time: *mut [i64; 2]) -> i32 {
            unsafe { time.write([1_790_000_000, 0]) };
            0
        }

        // libFuzzer's own, for what is to be over after some seconds, goes on: its library does not see this one.
        ::core::arch::global_asm!(".hidden clock_gettime");

        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::meter::forgive_codecs(),
            |data: &[u8]| $crate::meter::run(&$crate::entries::$name, data)
        );
    };
}
