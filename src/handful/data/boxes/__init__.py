"""Boxes in photos, from a detector or an annotation tool, and the crops cut out of them."""
