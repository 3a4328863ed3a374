#![no_main]

strait_fuzz::target!(MERGE);
