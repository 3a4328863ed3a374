//! One binary; modules by promise. What needs real brokers is under `brokers`: `./protocol-tests/run fast` skips it.

mod brokers;
