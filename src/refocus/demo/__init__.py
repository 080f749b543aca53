"""The whole story offline, on digits whose background gives them away."""
