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

        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::meter::forgive_codecs(),
            |data: &[u8]| $crate::meter::run(&$crate::entries::$name, data)
        );
    };
}
