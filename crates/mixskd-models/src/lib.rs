//! mixskd-models
