"""A page on which somebody who reads no code can try a model: one image at a time, on this machine.

What is shown of an image is decided in ``answer`` and put into words in ``wording``, without a
server; ``site`` is the page, ``server`` what listens. The page is written by hand and served by
Flask, which comes with MLflow, and waitress, because it must work without a network and send
nothing anywhere: Gradio 6 excludes the version of Pillow that images are decoded by here, brings 24
packages and telemetry, Streamlit and NiceGUI 10 and 20, and none of them lets a page say that it
loads nothing from elsewhere.
"""
