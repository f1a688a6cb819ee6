"""OthelloGPT: a GPT trained on random Othello games, and what its layers represent of the board.

After 'How GPT learns layer by layer' (linear probes and SAEs on OthelloGPT) and the Othello
world-model papers before it. The board engine, the games and the training are here too.
"""
