"""Whether the site's own alerts noticed a fault."""
