//! mixskd-data
