/* Tile transforms of Winograd's minimal filtering F(4x4, 3x3); common/winograd.py has the algorithm and its source.

   Images are NHWC float32. An image of height x width outputs has ceil(height / 4) x ceil(width / 4) tiles; tile (r,
   q) has the outputs from (4 r, 4 q) on and the 6 x 6 inputs from (4 r - 1, 4 q - 1) on. Pixels outside the image
   read as zero and are not written. A transformed tile is 36 or 16 vectors of one float per channel: vector i of tile
   t begins at planes + i * plane + t * channels.

   A two-dimensional transform is a one-dimensional one of the columns, then of the rows. Each reads and writes arrays
   of pointers to vectors, so a border differs from the middle only in where its pointers point. Channels are the
   innermost loop, which the compiler vectorizes; no sum runs over them or over tiles, so the result depends on
   neither vector width nor threads. */

#include <stdint.h>

enum { CHUNK = 64 }; /* channels at once: 36 such vectors are 9 kB and stay in the first-level cache */

static const float ZEROS[CHUNK];

/* B^T of the inputs: 6 vectors to 6. */
static inline void transform_input(const float *const from[6], float *const to[6], int64_t channels) {
    const float *x0 = from[0], *x1 = from[1], *x2 = from[2], *x3 = from[3], *x4 = from[4], *x5 = from[5];
    float *y0 = to[0], *y1 = to[1], *y2 = to[2], *y3 = to[3], *y4 = to[4], *y5 = to[5];
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
        float even = x4[c] - 4 * x2[c], odd = x3[c] - 4 * x1[c];
        float even2 = x4[c] - x2[c], odd2 = 2 * (x3[c] - x1[c]);
        y0[c] = 4 * x0[c] - 5 * x2[c] + x4[c];
        y1[c] = even + odd;
        y2[c] = even - odd;
        y3[c] = even2 + odd2;
        y4[c] = even2 - odd2;
        y5[c] = 4 * x1[c] - 5 * x3[c] + x5[c];
    }
}

/* A^T of the products: 6 vectors to 4 outputs. */
static inline void transform_output(const float *const from[6], float *const to[4], int64_t channels) {
    const float *x0 = from[0], *x1 = from[1], *x2 = from[2], *x3 = from[3], *x4 = from[4], *x5 = from[5];
    float *y0 = to[0], *y1 = to[1], *y2 = to[2], *y3 = to[3];
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
        float sum = x1[c] + x2[c], difference = x1[c] - x2[c];
        float sum2 = x3[c] + x4[c], difference2 = x3[c] - x4[c];
        y0[c] = x0[c] + sum + sum2;
        y1[c] = difference + 2 * difference2;
        y2[c] = sum + 4 * sum2;
        y3[c] = difference + 8 * difference2 + x5[c];
    }
}

/* A, the transpose of the above, of the outputs' gradients: 4 vectors to 6. */
static inline void transform_gradient(const float *const from[4], float *const to[6], int64_t channels) {
    const float *x0 = from[0], *x1 = from[1], *x2 = from[2], *x3 = from[3];
    float *y0 = to[0], *y1 = to[1], *y2 = to[2], *y3 = to[3], *y4 = to[4], *y5 = to[5];
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
        float even = x0[c] + x2[c], odd = x1[c] + x3[c];
        float even2 = x0[c] + 4 * x2[c], odd2 = 2 * x1[c] + 8 * x3[c];
        y0[c] = x0[c];
        y1[c] = even + odd;
        y2[c] = even - odd;
        y3[c] = even2 + odd2;
        y4[c] = even2 - odd2;
        y5[c] = x3[c];
    }
}

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

/* x (images, height, width, channels) -> 36 planes (tiles, channels). */
void winograd_input(const float *x, float *planes, int64_t plane, int64_t images, int64_t height, int64_t width,
                    int64_t channels, int threads) {
    int64_t down = (height + 3) / 4, across = (width + 3) / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < images * down; ++row) {
        float middle[6][6][CHUNK];
        const float *image = x + row / down * height * width * channels;
        int64_t top = row % down * 4 - 1;
        for (int64_t tile = 0; tile < across; ++tile) {
            int64_t left = tile * 4 - 1;
            for (int64_t first = 0; first < channels; first += CHUNK) {
                int64_t count = minimum(CHUNK, channels - first);
                for (int j = 0; j < 6; ++j) {
                    const float *from[6];
                    float *to[6];
                    for (int i = 0; i < 6; ++i) {
                        int64_t r = top + i, q = left + j;
                        int inside = r >= 0 && r < height && q >= 0 && q < width;
                        from[i] = inside ? image + (r * width + q) * channels + first : ZEROS;
                        to[i] = middle[i][j];
                    }
                    transform_input(from, to, count);
                }
                for (int i = 0; i < 6; ++i) {
                    const float *from[6];
                    float *to[6];
                    for (int j = 0; j < 6; ++j) {
                        from[j] = middle[i][j];
                        to[j] = planes + (i * 6 + j) * plane + (row * across + tile) * channels + first;
                    }
                    transform_input(from, to, count);
                }
            }
        }
    }
}

/* 36 planes (tiles, channels) -> y (images, height, width, channels). */
void winograd_output(float *y, const float *planes, int64_t plane, int64_t images, int64_t height, int64_t width,
                     int64_t channels, int threads) {
    int64_t down = (height + 3) / 4, across = (width + 3) / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < images * down; ++row) {
        float middle[4][6][CHUNK], outside[CHUNK];
        float *image = y + row / down * height * width * channels;
        int64_t top = row % down * 4;
        for (int64_t tile = 0; tile < across; ++tile) {
            int64_t left = tile * 4;
            for (int64_t first = 0; first < channels; first += CHUNK) {
                int64_t count = minimum(CHUNK, channels - first);
                for (int j = 0; j < 6; ++j) {
                    const float *from[6];
                    float *to[4];
                    for (int i = 0; i < 6; ++i)
                        from[i] = planes + (i * 6 + j) * plane + (row * across + tile) * channels + first;
                    for (int i = 0; i < 4; ++i) to[i] = middle[i][j];
                    transform_output(from, to, count);
                }
                for (int i = 0; i < 4; ++i) {
                    const float *from[6];
                    float *to[4];
                    for (int j = 0; j < 6; ++j) from[j] = middle[i][j];
                    for (int j = 0; j < 4; ++j) {
                        int64_t r = top + i, q = left + j;
                        to[j] = r < height && q < width ? image + (r * width + q) * channels + first : outside;
                    }
                    transform_output(from, to, count);
                }
            }
        }
    }
}

/* dy (images, height, width, channels) -> 36 planes (tiles, channels). */
void winograd_gradient(const float *dy, float *planes, int64_t plane, int64_t images, int64_t height, int64_t width,
                       int64_t channels, int threads) {
    int64_t down = (height + 3) / 4, across = (width + 3) / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < images * down; ++row) {
        float middle[6][4][CHUNK];
        const float *image = dy + row / down * height * width * channels;
        int64_t top = row % down * 4;
        for (int64_t tile = 0; tile < across; ++tile) {
            int64_t left = tile * 4;
            for (int64_t first = 0; first < channels; first += CHUNK) {
                int64_t count = minimum(CHUNK, channels - first);
                for (int j = 0; j < 4; ++j) {
                    const float *from[4];
                    float *to[6];
                    for (int i = 0; i < 4; ++i) {
                        int64_t r = top + i, q = left + j;
                        from[i] = r < height && q < width ? image + (r * width + q) * channels + first : ZEROS;
                    }
                    for (int i = 0; i < 6; ++i) to[i] = middle[i][j];
                    transform_gradient(from, to, count);
                }
                for (int i = 0; i < 6; ++i) {
                    const float *from[4];
                    float *to[6];
                    for (int j = 0; j < 4; ++j) from[j] = middle[i][j];
                    for (int j = 0; j < 6; ++j)
                        to[j] = planes + (i * 6 + j) * plane + (row * across + tile) * channels + first;
                    transform_gradient(from, to, count);
                }
            }
        }
    }
}
