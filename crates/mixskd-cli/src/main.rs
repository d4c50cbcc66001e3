//! mixskd
fn main() {}
