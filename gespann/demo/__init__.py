"""What a newcomer sees first: a lab with an array group and a pool in it, and the main job done in it step by step."""
