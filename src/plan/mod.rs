//! Pure: timing and policies to due slots.
