"""A local web page on which people who do not program can try a model, one image at a time.

``image_answer`` computes what is shown of an image and ``messages`` phrases it, both without a
server; ``web_app`` is the page, and ``server`` listens for requests.

The page is a template of this package, served by Flask, which MLflow installs, and waitress, which
has no dependencies. Toolkits for such pages were considered: Gradio 6 refuses the version of Pillow
that decodes images here and adds 24 packages, NiceGUI adds 20 and Streamlit 10; two of them collect
data about their users by default. The requirements here (nothing is loaded from other sites, which
the browser enforces; a notice that stays in view; use by keyboard, screen reader and phone) take
some 250 lines of HTML, CSS and JavaScript.
"""
