"""Applies layers in chrooted workers, and makes layers by comparing two trees."""
