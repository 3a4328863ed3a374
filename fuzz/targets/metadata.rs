#![no_main]

strait_fuzz::target!(METADATA);
