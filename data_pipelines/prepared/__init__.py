"""Videos in shards of records, for reading at random: how they are written, and how clips are read from them."""
