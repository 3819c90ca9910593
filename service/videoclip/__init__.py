"""What must happen to a video and to a label before the network sees them.

Serving and training use this one package, so that both prepare their inputs alike. It imports
nothing else of this project, and no torch.
"""
