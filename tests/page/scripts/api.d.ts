// What the pack's scripts use of ComfyUI's client of its server.

export const api: {
  apiURL(route: string): string;
  fetchApi(route: string, options?: RequestInit): Promise<Response>;
};
