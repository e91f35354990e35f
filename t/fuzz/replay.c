/*
 * Runs a fuzz target over files, where there is no libFuzzer: each argument
 * is a file, or a folder with files.
 */

#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
replay_file(const char *path, size_t size)
{
    FILE *file;
    uint8_t *data;

    /* of exactly this size, so that a sanitizer sees the byte behind it */

    file = fopen(path, "rb");
    data = malloc(size);

    if (file == NULL || (data == NULL && size)
        || fread(data, 1, size, file) != size)
    {
        perror(path);
        exit(1);
    }

    LLVMFuzzerTestOneInput(data, size);

    free(data);
    fclose(file);
}


static unsigned
replay(const char *path)
{
    DIR *dir;
    char name[PATH_MAX];
    unsigned files;
    struct stat st;
    struct dirent *entry;

    if (stat(path, &st) != 0) {
        perror(path);
        exit(1);
    }

    if (!S_ISDIR(st.st_mode)) {
        replay_file(path, (size_t) st.st_size);
        return 1;
    }

    dir = opendir(path);

    if (dir == NULL) {
        perror(path);
        exit(1);
    }

    files = 0;

    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.'
            && snprintf(name, sizeof(name), "%s/%s", path, entry->d_name)
                   < (int) sizeof(name))
        {
            files += replay(name);
        }
    }

    closedir(dir);

    return files;
}


int
main(int argc, char **argv)
{
    unsigned files = 0;

    for (int i = 1; i < argc; i++) {
        files += replay(argv[i]);
    }

    printf("%s: %u inputs\n", argv[0], files);

    return files == 0;
}
