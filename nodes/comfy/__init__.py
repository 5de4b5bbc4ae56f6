"""All talk with ComfyUI, and what differs between its versions.

folders: where weights lie and what they are called; models: networks in ComfyUI's memory; pictures:
images, masks and previews; progress: the node's bar; node: what all nodes have in common.
"""
