"""The Explain tab of TensorBoard, and the same page as one HTML file.

TensorBoard loads this when it starts, so nothing in here needs Keras or TensorFlow.
"""
