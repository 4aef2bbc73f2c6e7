"""The five benchmark sets, each from its ready-made or its raw files, as Papamakarios et al. 2017 made them."""
