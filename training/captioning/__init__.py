"""Captions of videos that nobody described (Open-VCLIP++, TPAMI 2024, section on video captions).

A picture captioner (BLIP-2) says what is in some frames of each video, one by one; a language model
(Llama 2 chat) makes one sentence of what was said. Two stages, so that only one of the two models
is in memory; each writes JSON Lines and goes on where it stopped.
"""

#: The paper's "BLIP-2 XXL".
BLIP2 = "Salesforce/blip2-flan-t5-xxl"
#: The paper's "Llama-2-7B-chat". Its licence asks for an agreement before it can be fetched.
LANGUAGE_MODEL = "meta-llama/Llama-2-7b-chat-hf"
