"""`mneme verify`: a finished audit hashed and computed again by whoever receives it, without torch and without a network."""
