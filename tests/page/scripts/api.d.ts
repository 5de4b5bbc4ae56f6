// What the pack's scripts use of ComfyUI's client of its server.

export const api: {
  apiURL(route: string): string;
  addEventListener(type: string, listener: (event: CustomEvent) => void): void;
  getWorkflowTemplates?: () => Promise<Record<string, string[]>>;
  fetchApi(route: string, options?: RequestInit): Promise<Response>;
};
