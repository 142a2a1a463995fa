"""Feature maps of linear far states, distilled from a decoder's own attention."""
