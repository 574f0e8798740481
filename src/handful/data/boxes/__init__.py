"""Boxes in photos, from a detector or an annotation tool, and the crops that are cut out of them."""
