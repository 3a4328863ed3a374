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

        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::meter::forgive_codecs(),
            |data: &[u8]| $crate::meter::run(&$crate::entries::$name, data)
        );
    };
}
