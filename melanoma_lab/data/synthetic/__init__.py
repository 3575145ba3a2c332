"""The embedded dataset: dermoscopy-like lesions, drawn by the program, the same from the same seed.

It lets every command run without a download. The pictures imitate what makes real dermoscopy
hard (few images, unbalanced classes that overlap, several photographs of one lesion, hairs,
cameras), not dermatology: nothing measured on them says anything about skin.

A lesion is an ``appearance`` (what its class looks like, varied), painted once as a patch of skin
(``lesion``), of which each ``photograph`` is another view; ``dataset`` writes them to a folder.
"""
