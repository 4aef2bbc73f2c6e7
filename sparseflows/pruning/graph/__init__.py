"""What belongs together: chains of weight layers, masks, counting."""
