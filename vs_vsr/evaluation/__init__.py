"""The papers' measurements: low-resolution frames from the true ones, PSNR and SSIM.

What a user calls is `vs-vsr eval`. Speed and borders are measured in `vs_vsr.bench`.
"""
