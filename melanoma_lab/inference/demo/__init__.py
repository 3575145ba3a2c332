"""A page on which somebody who reads no code can try a model: one image at a time, on this machine.

What is shown of an image is decided in ``image_answer`` and put into words in ``messages``,
without a server; ``web_app`` is the page, ``server`` what listens.

The page is a template of the lab's own, served by Flask, which comes with MLflow, and waitress, a
package without dependencies. Toolkits for such pages were weighed: Gradio 6 refuses the version of
Pillow by which images are decoded here and adds 24 packages, NiceGUI adds 20 and Streamlit 10; two
of them report on their users unless told not to. What matters here (nothing from elsewhere, which
the browser enforces; a notice that stays in view; use by keyboard, by ear and on a phone) takes
some 250 lines of HTML, CSS and JavaScript.
"""
