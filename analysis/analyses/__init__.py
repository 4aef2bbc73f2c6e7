"""The analyses of a run's stages, all of one shape: settings, what is computed, tables, figures."""
