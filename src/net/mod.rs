//! The network: address guard and HTTP client builder.
