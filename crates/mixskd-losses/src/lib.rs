//! mixskd-losses
