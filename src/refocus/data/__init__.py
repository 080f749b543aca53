"""Images, masks and labels from folders; transforms; shifts of the background, place, size and
angle.
"""
