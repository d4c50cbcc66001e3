//! mixskd-train
