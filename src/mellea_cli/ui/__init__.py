"""Everything a person sees; the only home of Rich."""
