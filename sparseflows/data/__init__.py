"""Where rows come from: two-dimensional toy densities, small bundled sets, tables of the user's own."""
