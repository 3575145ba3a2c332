"""The synthetic dataset: dermoscopy-like lesions drawn by the program, reproducible from a seed.

It lets every command run without a download. The pictures imitate the difficulties of real
dermoscopy (few images, unbalanced and overlapping classes, several photographs of one lesion,
hairs, cameras) and not dermatology: results on them say nothing about skin.

A lesion has an ``appearance`` (that of its class, varied) and is painted once on a patch of skin
(``lesion``). Each ``photograph`` is another view of the patch. ``dataset`` writes the photographs
to a folder.
"""
