"""A small Llama, averaged by Flower, trained by volunteers who run Nightjar."""
