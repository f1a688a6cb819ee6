"""OthelloGPT: a GPT trained on random Othello games, and what its layers know of the board.

After 'How GPT learns layer by layer' (linear probes and SAEs on OthelloGPT) and the
Othello world-model papers before it. Board engine, game data and training live here;
nothing heavy is imported until a module is asked for.
"""
