"""What linear system a network becomes for one input, without ever forming its matrix.

A network with all its decisions replayed (which ReLU passes, which pixel a pool chose, how far a
norm scales, where attention looks) is affine in what goes in: LI(x1) = A(x0) x1 + r(x0), and
LI(x0) = f(x0). After *A Tour of Convolutional Networks Guided by Linear Interpreters* (Navarrete
Michelini et al., ICCV 2019).
"""
